//! What a Vma maps: reference-counted memory objects.
