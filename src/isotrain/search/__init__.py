"""The search: one study, many identical workers that share nothing but its storage."""
