"""An example of another package's tool kind: `gauge`, which writes a reading with its unit."""
