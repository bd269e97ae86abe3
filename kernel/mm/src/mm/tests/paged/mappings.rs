//! mappings

