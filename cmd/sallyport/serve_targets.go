//go:build unix

package main

import (
	"context"
	"fmt"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/protocols/postgres"
	"sallyport/protocols/ssh"
	"sallyport/web/api"
)

// setUpTarget is what a target needs, as its protocol knows it.
func (g *gateway) setUpTarget(_ context.Context, target configs.Target) (api.Setup, error) {
	var parts []configs.Instruction
	if target.Kind == configs.KindSSH {
		parts = ssh.Setup(target, g.authn.TargetAuthorities()...)
	} else {
		parts = postgres.Setup(target)
	}
	setup := api.Setup{Target: target.Name, Kind: target.Kind}
	for _, p := range parts {
		setup.Parts = append(setup.Parts, api.SetupPart{Name: p.Name, Title: p.Title, Text: p.Text})
	}
	return setup, nil
}

// checkTarget logs in to a target with each of its accounts.
func (g *gateway) checkTarget(ctx context.Context, who authn.Identity, target configs.Target) (api.Check, error) {
	check := api.Check{Target: target.Name, OK: true}
	for _, account := range target.Accounts {
		step := api.CheckStep{Name: account.Name + "@" + target.Name, OK: true}
		detail, warnings, err := g.checkAccount(ctx, who, target, account)
		if err != nil {
			step.OK, step.Detail = false, err.Error()
			if r := refusal.Of(err); r != nil {
				step.Detail, step.Hint = r.Message, r.Hint
				if r.Detail != "" {
					step.Detail += ": " + r.Detail
				}
			}
			check.OK = false
		} else {
			step.Detail = detail
		}
		check.Steps = append(check.Steps, step)
		for _, warning := range warnings {
			check.Steps = append(check.Steps, api.CheckStep{Name: step.Name + " warning", OK: true, Detail: warning})
		}
	}
	return check, nil
}

func (g *gateway) checkAccount(ctx context.Context, who authn.Identity, target configs.Target, account configs.Account) (detail string, warnings []string, err error) {
	if target.Kind == configs.KindSSH {
		result, err := g.ssh.Check(ctx, who, target, account)
		return fmt.Sprintf("logged in as %s; %s", result.User, result.Version), nil, err
	}
	result, err := g.postgres.Check(ctx, who, target, account)
	return fmt.Sprintf("logged in as %s; PostgreSQL %s, %s", result.User, result.Version, result.TLS), result.Warnings, err
}

// trustTarget reads the keys that an SSH target proves itself with now.
func (g *gateway) trustTarget(ctx context.Context, who authn.Identity, target configs.Target) (api.Trust, error) {
	trust := api.Trust{Target: target.Name, Keys: []api.HostKey{}}
	if target.Kind != configs.KindSSH {
		return trust, refusal.New(refusal.Unsupported, "%s targets have no host keys", target.Kind).
			WithHint("name the authority of the target's certificate in tls.ca")
	}
	keys, err := g.ssh.ScanHostKeys(ctx, who, target)
	if err != nil {
		return trust, err
	}
	for _, k := range keys {
		trust.Keys = append(trust.Keys, api.HostKey(k))
	}
	return trust, nil
}

// sweep ends what a gateway that died left running on its targets.
func (g *gateway) sweep(ctx context.Context) {
	crashed := g.recorder.Crashed()
	if len(crashed) == 0 {
		return
	}
	g.log.Info("an earlier run of the gateway died; ending what its sessions left running", "sessions", len(crashed))
	if err := g.postgres.Sweep(ctx, g.recorder, crashed); err != nil {
		g.log.Error("not everything that a crashed session left running could be ended", "error", err)
	}
}

// cleanups are the roles of grants that are over, as the API has them.
func (g *gateway) cleanups() (all []api.Cleanup) {
	for _, p := range g.roles.Pending() {
		all = append(all, api.Cleanup{
			Role: p.Role, Grant: p.Grant, Target: p.Target, Account: p.Account, Ended: p.Ended, Attempts: p.Attempts, Next: p.Next,
			Stuck: p.Stuck, Error: p.Error,
		})
	}
	return all
}
