//! Settings of a process: flags > environment > user's file > system's file > defaults.
