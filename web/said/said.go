// Package said is the rooms' own things as the API says them: a grant, a session, an identity, what policies answer. Its functions only
// put into other words; who may hear it was decided before. Lists in it are never null.
package said

import (
	"sallyport/authn"
	"sallyport/recorder/archive"
	"sallyport/session"
	"sallyport/web/api"
)

// Identity is an identity as the API says it.
func Identity(i authn.Identity) api.Identity {
	groups := i.Groups
	if groups == nil {
		groups = []string{}
	}
	return api.Identity{
		Issuer:   i.Issuer,
		Subject:  i.Subject,
		Kind:     string(i.Kind),
		Name:     i.Name,
		Email:    i.Email,
		Groups:   groups,
		SignedIn: i.SignedIn,
		Expires:  i.Expires,
		Method:   i.Method,
		AuthTime: i.AuthTime,
		ACR:      i.ACR,
		AMR:      i.AMR,

		Emergency: i.Emergency != "",
	}
}

// Credential is a password without what proves it.
func Credential(p authn.Password) api.Credential {
	return api.Credential{ID: p.ID, User: p.User(), Target: p.Target, Account: p.Account, Issued: p.Issued, Expires: p.Expires}
}

// Authorities are the gateway's certificate authorities and signing keys.
func Authorities(list []authn.Authority) []api.Authority {
	all := []api.Authority{}
	for _, a := range list {
		one := api.Authority{Name: a.Name, Purpose: a.Purpose, Fingerprint: a.Fingerprint, Since: a.Since.UTC(), Published: a.Published, Next: a.Next}
		for _, old := range a.Old {
			one.Old = append(one.Old, api.OldAuthority{Fingerprint: old.Fingerprint, Until: old.Until.UTC()})
		}
		all = append(all, one)
	}
	return all
}

// Session is a session as the API says it.
func Session(i session.Info) api.Session {
	out := api.Session{
		ID:        i.ID,
		Protocol:  i.Protocol,
		Identity:  Identity(i.Identity),
		Target:    i.Target,
		Account:   i.Account,
		Grant:     i.Grant,
		Reason:    i.Reason,
		Approvers: OrEmpty(i.Approvers),
		Client:    i.Client,
		Started:   i.Started,
		EndReason: i.EndReason,
		EndDetail: i.EndDetail,
		Live:      i.Live,
	}
	if !i.Ended.IsZero() {
		out.Ended = &i.Ended
	}
	return out
}

// Archive is how it stands with the archive of recordings.
func Archive(a archive.Status) *api.Archive {
	out := &api.Archive{
		Place: a.Place, Lock: a.Lock, Waiting: a.Waiting, Oldest: a.Oldest, Archived: a.Archived, Bytes: a.Bytes,
		Checkpoint: a.Checkpoint, CheckpointAt: a.CheckpointAt, Complete: a.Complete, Behind: a.Behind, Error: a.Error, FailedAt: a.FailedAt,
		Shredding: a.Shredding, Shreds: []api.Shred{},
	}
	for _, d := range a.Shreds {
		out.Shreds = append(out.Shreds, api.Shred{Session: d.Session, Object: d.Object, Since: d.Since, Locked: d.Locked, Next: d.Next, Stuck: d.Stuck, Error: d.Error})
	}
	return out
}

// OrEmpty is a list that is not null.
func OrEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
