// Package doctor examines a machine for running a broker: "ringmq doctor".
//
//	Options (what the broker would be run with)      /proc, /sys, the store's folder, the interfaces
//	        │                                                      │
//	        └──────────► checks, one small function each ◄─────────┘
//	                               │
//	                      Report: Findings, exit status ──► table or JSON
//
// Each [Finding] has a state, what was found, what that means for ringmq and, unless all is well, the cure. docs/doctor.md
// lists them all. A check looks and changes nothing; the store's folder gets one probe file, which is gone again at the end.
//
// Everything that the checks see comes through a field of [machine], so that the tests show them machines that they do not run
// on. The room makes no system call of its own: what needs one goes through ioengine, or
// is handed in by cmd.
package doctor
