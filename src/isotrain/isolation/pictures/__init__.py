"""Pictures: what happened to the zones as training went on. Matplotlib is imported by ``figures`` alone."""
