// Package lint holds, as tests, the rules of the house that the compiler does not know: which room may import which,
// where unsafe code may stand, how long files and functions may grow.
//
// The tests parse the module's own source from its root, need no network, and name file and line of each breach. A rule
// that is broken is mended in the code: never relax a rule to make a build pass.
package lint
