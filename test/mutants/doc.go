// Package mutants proves that the simulator can fail: it plants bugs that Raft implementations really had into the engine and
// the session table, one at a time, and expects the simulator to find each within a number of seeds. The bugs are textual patches, applied through
// the compiler's overlay: nothing in production code knows of them.
package mutants
