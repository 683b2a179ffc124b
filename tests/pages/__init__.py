"""Pages by their own words: their blocks are taken as a reader would, and what they show is compared."""
