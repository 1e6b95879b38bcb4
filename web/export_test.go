package web

// Routes are the patterns of all that a gateway with these options answers to.
func Routes(o Options) []string { return (&server{Options: o}).routes().patterns }
