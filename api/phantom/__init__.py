"""Wire types of Phantom Fragment itself."""
