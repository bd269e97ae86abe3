//! random

