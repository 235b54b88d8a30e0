//! Pure: placement of chunks on nodes. Empty in this version: a cluster has one node, which holds
//! every chunk.
