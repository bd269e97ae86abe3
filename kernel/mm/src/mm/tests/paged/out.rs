//! out

