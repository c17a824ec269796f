"""The sections of the report, one module each: a function from `Inputs` to a `Section`, or None without a subject."""
