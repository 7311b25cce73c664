"""From a raw series to windows: tables in, arrays out. Pandas lives here."""
