package pebblelog

// ScanWriteAheadLogs is scanWriteAheadLogs, for the fuzzers.
var ScanWriteAheadLogs = scanWriteAheadLogs
