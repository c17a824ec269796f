"""The report page: markup, style and behaviour."""
