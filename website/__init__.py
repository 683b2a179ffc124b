"""The documentation as a site: pages are gathered, references made from the code, the result looked at."""
