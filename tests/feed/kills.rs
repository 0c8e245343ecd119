//! Leader and follower killed at any time.
