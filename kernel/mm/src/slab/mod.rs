//! Slab caches: objects smaller than a page.
