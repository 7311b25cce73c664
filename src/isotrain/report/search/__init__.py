"""The page of a search: its front, run again on fresh seeds, and what mattered."""
