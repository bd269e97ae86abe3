//! Reverse mapping: from a page to all that map it.
