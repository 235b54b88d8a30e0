//! One server process. (interface; implementation to come)
