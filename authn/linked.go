package authn

import "context"

// LinkedAccount is the Method of an identity for whom another system speaks: the person is signed in here, but has not shown
// that for what is done now.
const LinkedAccount = "linked account"

// SignedIn returns somebody as they are signed in now, for those who speak for them where no credential of theirs can: a
// chat account or another system's that was linked to issuer and subject. It refuses where they never signed in here, have
// signed out or were disabled, or their sign-in has run out: what they may do is what their groups were then. through is
// who speaks for them ("webhook chatops"), for the audit log.
func (s *Service) SignedIn(ctx context.Context, issuer, subject, through string) (Identity, error) {
	st, err := s.latest(ctx, s.store.Read(), Identity{Issuer: issuer, Subject: subject})
	if err != nil {
		return Identity{}, err
	}
	who := st.Identity
	who.Method, who.Credential = LinkedAccount, through
	return who, nil
}
