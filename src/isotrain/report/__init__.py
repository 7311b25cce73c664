"""Pages and figures for people: what the stages found, said in words and drawn."""
