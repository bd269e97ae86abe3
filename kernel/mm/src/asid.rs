//! ASIDs with generations.
