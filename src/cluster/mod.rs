//! The cluster's CA, certificates and identity files. (interface; implementation to come)
