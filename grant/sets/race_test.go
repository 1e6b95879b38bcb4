//go:build race

package sets

import "flag"

func init() { flag.Set("rapid.checks", "25") } // the command line still has the last word
