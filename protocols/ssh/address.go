package ssh

import "strings"

// address is what an SSH user name says: which account on which target. Without a target the connection is for
// jumping, or for asking what there is.
type address struct {
	account string
	target  string
}

// parseAddress reads ACCOUNT@TARGET, or ACCOUNT+TARGET. The last separator counts, so that accounts may be written
// like mail addresses.
func parseAddress(user string) address {
	for _, separator := range []string{"@", "+"} {
		if i := strings.LastIndex(user, separator); i >= 0 {
			return address{account: user[:i], target: user[i+1:]}
		}
	}
	return address{account: user}
}

func (a address) String() string { return a.account + "@" + a.target }
