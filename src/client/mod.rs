//! What a program that uses the cluster calls. (interface; implementation to come)
