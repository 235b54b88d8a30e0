//! The command line. (interface; implementation to come)
