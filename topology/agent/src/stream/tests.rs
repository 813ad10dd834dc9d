//! Claims about streams and a scheduler that comes, goes and refuses. The real scheduler is in the workspace's integration tests.
