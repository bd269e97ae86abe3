//! Zones and nodes.
