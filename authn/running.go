package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/authn/secrets"
	"sallyport/authn/workload"
	"sallyport/configs"
	"sallyport/internal/store"
)

const (
	// askJobs is how often jobs that are signed in are asked about.
	askJobs = 20 * time.Second
	// jobGrace is how long a job stays signed in whose provider can't be asked.
	jobGrace = 10 * time.Minute
	// maxAsked bounds one round of questions about a workload's jobs; the rest comes first in the next.
	maxAsked = 200
)

// mustRun refuses a job that its provider says is over: a token is proof of the past. It does nothing where the provider
// is not asked. The error wraps federation.ErrUnavailable where it can't be known, and then nobody is let in.
func (s *Service) mustRun(ctx context.Context, job workload.Job, who Identity, from string) error {
	if !job.Asked() {
		return nil
	}
	runs, err := s.askRuns(ctx, job.Workload, job.Handle)
	if err != nil || runs {
		return err
	}
	r := refuseJob(errors.New("its provider says that the job does not run"))
	e := event(kindJobRefused, who, from)
	e.Outcome, e.Reason = string(r.Code), "its provider says that the job does not run"
	e.Fields["workload"], e.Fields["token"] = job.Workload.Name, job.Token
	if err := s.store.Audit(ctx, e); err != nil {
		return err
	}
	return r
}

func (s *Service) askRuns(ctx context.Context, w configs.Workload, handle map[string]string) (bool, error) {
	token, err := secrets.Resolve(ctx, w.Running.Token)
	if err != nil {
		return false, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	return workload.Runs(ctx, w, token, handle)
}

// watchJob notes that a job is to be asked about while the sign-in lasts.
func (s *Service) watchJob(ctx context.Context, tx *store.Tx, job workload.Job, signIn string) error {
	if !job.Asked() {
		return nil
	}
	handle, err := json.Marshal(job.Handle)
	if err != nil {
		return fmt.Errorf("note the job: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO jobs (sign_in, workload, handle, ran) VALUES (?, ?, ?, ?)`,
		signIn, job.Workload.Name, string(handle), stamp(s.now())); err != nil {
		return fmt.Errorf("note the job: %w", err)
	}
	return nil
}

// watchedJob is a job that is signed in.
type watchedJob struct {
	signIn, workload string
	handle           map[string]string
	who              Identity
	ran              time.Time
}

// askAboutJobs signs out the jobs that are over, and those about which nothing could be learned for too long. No workload's jobs wait
// for another's provider, which may take long to say nothing.
func (s *Service) askAboutJobs(ctx context.Context) error {
	asked := s.jobs.Load().Asked()
	errs := make([]error, len(asked))
	var all sync.WaitGroup
	for i, w := range asked {
		all.Go(func() { errs[i] = s.askAbout(ctx, w) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// askAbout is askAboutJobs for one workload, whose provider is asked one question at a time.
func (s *Service) askAbout(ctx context.Context, w configs.Workload) error {
	jobs, err := s.watchedJobs(ctx, w.Name)
	if err != nil {
		return err
	}
	var errs []error
	for _, job := range jobs {
		runs, err := s.askRuns(ctx, w, job.handle)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && runs:
			err = s.store.Do(ctx, func(tx *store.Tx) error {
				_, err := tx.ExecContext(ctx, `UPDATE jobs SET ran = ? WHERE sign_in = ?`, stamp(s.now()), job.signIn)
				return err
			})
		case err == nil:
			err = s.endJob(ctx, job, "its provider says that the job is over")
		case s.now().Sub(job.ran) > jobGrace:
			err = errors.Join(err, s.endJob(ctx, job, "its provider could not be asked whether it runs"))
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// watchedJobs are those of a workload asked about longest ago.
func (s *Service) watchedJobs(ctx context.Context, workload string) (jobs []watchedJob, err error) {
	rows, err := s.store.Read().QueryContext(ctx, `SELECT j.sign_in, j.workload, j.handle, j.ran, i.issuer, i.subject, i.name FROM jobs j
		JOIN sign_ins s ON s.id = j.sign_in JOIN identities i ON i.id = s.identity
		WHERE j.workload = ? AND s.ended = 0 AND s.expires > ? AND s.at > i.signed_out ORDER BY j.ran LIMIT ?`, workload, stamp(s.now()), maxAsked)
	if err != nil {
		return nil, fmt.Errorf("find the jobs to ask about: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var job watchedJob
		var handle string
		var ran int64
		if err := rows.Scan(&job.signIn, &job.workload, &handle, &ran, &job.who.Issuer, &job.who.Subject, &job.who.Name); err != nil {
			return nil, fmt.Errorf("find the jobs to ask about: %w", err)
		}
		if err := json.Unmarshal([]byte(handle), &job.handle); err != nil {
			return nil, fmt.Errorf("the job of sign-in %s: %w", job.signIn, err)
		}
		job.ran = unstamp(ran)
		jobs = append(jobs, job)
	}
	return jobs, rows.Err()
}

// endJob signs a job out. Where several jobs are one identity by configuration, what hangs on the identity ends with the
// last of them.
func (s *Service) endJob(ctx context.Context, job watchedJob, why string) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		var others int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sign_ins s JOIN identities i ON i.id = s.identity
			WHERE i.id = ? AND s.id <> ? AND s.ended = 0 AND s.expires > ? AND s.at > i.signed_out`,
			identityID(job.who.Issuer, job.who.Subject), job.signIn, stamp(s.now())).Scan(&others); err != nil {
			return fmt.Errorf("sign %s out: %w", job.who.Key(), err)
		}
		if others > 0 {
			if _, err := tx.ExecContext(ctx, `UPDATE sign_ins SET ended = ? WHERE id = ? AND ended = 0`, stamp(s.now()), job.signIn); err != nil {
				return fmt.Errorf("sign %s out: %w", job.who.Key(), err)
			}
		} else if err := s.end(ctx, tx, job.who, system, why); err != nil {
			return err
		}
		return tx.Audit(store.AuditEvent{Kind: "workload.over", Actor: system.Actor, Reason: why, Fields: map[string]string{
			"identity": job.who.Key(), "name": job.who.Name, "workload": job.workload, "sign_in": job.signIn,
		}})
	})
}
