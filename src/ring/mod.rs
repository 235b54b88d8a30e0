//! Pure: placement of chunks on nodes. One node for now holds everything; the ring proper comes
//! with the second node.
