"""Searches over hyper-parameters: what is asked, how trials are suggested, trained and judged, and the winner."""
