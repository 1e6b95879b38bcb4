//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/internal/store/backup"
)

// passphraseHelp is the same for both commands.
const passphraseHelp = "the passphrase, as a `REFERENCE`: file:PATH, env:NAME or command:PROGRAM"

func newBackupCommand() *cobra.Command {
	var file, passphrase string
	var recipients []string
	var recordings bool
	command := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the gateway's database, keys and authorities into one encrypted file",
		Long: `Write what the gateway can't make again into FILE ("-": standard output): the database with grants, sign-ins and every set of
policies, the keys and certificate authorities, and certificates by ACME; encrypted by age to the recipients or to a passphrase. It
runs on the gateway's machine, as its user, and the gateway goes on meanwhile.

With --recordings the recordings, the audit log and the log over both are in it too; then the gateway must be stopped. Else back
those up as files. Configuration and the secrets that it names are never in it.

docs/operations.md says how to bring a backup back; rehearse it.`,
		Example: `  sallyport backup -c /etc/sallyport/sallyport.yaml --recipient age1… /backup/sallyport-$(date +%F).age
  sallyport backup --passphrase file:/root/backup-passphrase --recordings /backup/all.age`,
		Args: exactly("FILE"),
		RunE: func(command *cobra.Command, args []string) error {
			config, err := configs.Load(file)
			if err != nil {
				return err
			}
			to, err := backupRecipients(command.Context(), recipients, passphrase)
			if err != nil {
				return err
			}
			if recordings {
				lock, err := store.Lock(config.State)
				if errors.Is(err, store.ErrLocked) {
					return errors.New("recordings can't be backed up while the gateway runs: stop it, or leave --recordings out and copy them as files")
				}
				if err != nil {
					return err
				}
				defer lock.Close()
			}
			source := backup.Source{
				State: config.State, Snapshot: func(ctx context.Context, to string) error { return snapshot(ctx, config, to) },
				Manifest: backup.Manifest{Version: version, Gateway: config.URL, Store: storeKind(config), Recordings: recordings},
			}
			made, err := writeBackup(command, args[0], func(w io.Writer) (backup.Manifest, error) {
				return backup.Write(command.Context(), w, source, to...)
			})
			if err != nil || args[0] == "-" {
				return err
			}
			return show(command, made, func(t *table) {
				t.row("FILE", "MADE", "STORE", "RECORDINGS", "FILES", "BYTES")
				t.row(args[0], local(made.Made), made.Store, strconv.FormatBool(made.Recordings), strconv.Itoa(made.Files), strconv.FormatInt(made.Bytes, 10))
			})
		},
	}
	flags := command.Flags()
	flags.StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	flags.StringArrayVar(&recipients, "recipient", nil, "encrypt to this age `RECIPIENT` (age1…); may be repeated")
	flags.StringVar(&passphrase, "passphrase", "", passphraseHelp)
	flags.BoolVar(&recordings, "recordings", false, "with recordings and logs; the gateway must be stopped")
	return command
}

func newRestoreCommand() *cobra.Command {
	var file, passphrase, identity string
	var markOnly bool
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring back what backup wrote; nobody has access until they are granted it anew",
		Long: `Bring back what "sallyport backup" wrote into FILE, into the state directory and the store that the configuration names. Nothing
is overwritten: there must be no keys and no database yet. Recordings and logs that are still there go on.

When the gateway then starts, every grant that was open in the backup ends ("restored"), every request that waited lapses, and
everybody signs in anew: what was revoked or used up since the backup was made can't be known.

--mark-only is for a database that was brought back by other means (a server's own backup): it brings nothing back, and has the next
start end the same.`,
		Example: `  sallyport restore -c /etc/sallyport/sallyport.yaml --identity key.txt /backup/sallyport-2026-11-25.age
  sallyport restore --mark-only`,
		Args: atMost(1),
		RunE: func(command *cobra.Command, args []string) error {
			if (len(args) == 0) != markOnly {
				return usage(command, "name the backup's file, or --mark-only and none")
			}
			config, err := configs.Load(file)
			if err != nil {
				return err
			}
			if markOnly {
				return markRestored(command, config)
			}
			identities, err := backupIdentities(command, identity, passphrase)
			if err != nil {
				return err
			}
			from, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open the backup: %w", err)
			}
			defer from.Close()
			if err := os.MkdirAll(config.State, 0o700); err != nil {
				return fmt.Errorf("make the state directory: %w", err)
			}
			lock, err := store.Lock(config.State)
			if err != nil {
				return err
			}
			defer lock.Close()
			made, err := backup.Restore(command.Context(), from, backup.Destination{
				State: config.State, Store: storeKind(config),
				Restore: func(ctx context.Context, from string, made time.Time) error {
					return bringBack(ctx, config, from, made)
				},
			}, identities...)
			if err != nil {
				return err
			}
			return show(command, made, func(t *table) {
				t.row("MADE", "BY", "STORE", "RECORDINGS", "FILES", "BYTES")
				t.row(local(made.Made), made.Version, made.Store, strconv.FormatBool(made.Recordings), strconv.Itoa(made.Files), strconv.FormatInt(made.Bytes, 10))
			})
		},
	}
	flags := command.Flags()
	flags.StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	flags.StringVar(&passphrase, "passphrase", "", passphraseHelp)
	flags.StringVar(&identity, "identity", "", "`FILE` of age identities that opens the backup")
	flags.BoolVar(&markOnly, "mark-only", false, "the database was brought back by other means: say so")
	return command
}

// storeKind is the store's, as backups have it.
func storeKind(config *configs.Config) string {
	if config.Store == "" {
		return "sqlite"
	}
	return "postgres"
}

func snapshot(ctx context.Context, config *configs.Config, to string) error {
	if config.Store == "" {
		return store.SnapshotSQLite(ctx, config.State, to)
	}
	connection, err := secrets.Resolve(ctx, config.Store)
	if err != nil {
		return fmt.Errorf("the store's connection string: %w", err)
	}
	return store.SnapshotPostgres(ctx, connection, to)
}

func bringBack(ctx context.Context, config *configs.Config, from string, made time.Time) error {
	if config.Store == "" {
		return store.RestoreSQLite(ctx, from, config.State, made)
	}
	connection, err := secrets.Resolve(ctx, config.Store)
	if err != nil {
		return fmt.Errorf("the store's connection string: %w", err)
	}
	return store.RestorePostgres(ctx, from, connection, made)
}

// markRestored says that the database was brought back by other means.
func markRestored(command *cobra.Command, config *configs.Config) error {
	s, err := openStore(command.Context(), config)
	if err != nil {
		return err
	}
	if err := errors.Join(s.MarkRestored(command.Context(), time.Now()), s.Close()); err != nil {
		return err
	}
	fmt.Fprintln(command.OutOrStdout(), "When the gateway starts, what is open in its store ends.")
	return nil
}

// backupRecipients are those of the command line.
func backupRecipients(ctx context.Context, texts []string, passphrase string) ([]age.Recipient, error) {
	switch {
	case passphrase != "" && len(texts) > 0:
		return nil, errors.New("a backup is encrypted to recipients or to a passphrase, not to both")
	case passphrase == "":
		if len(texts) == 0 {
			return nil, errors.New("a backup has the gateway's keys in it, so it is always encrypted: name --recipient age1… (age-keygen makes one) or --passphrase file:PATH")
		}
		return configs.ParseRecipients(texts)
	}
	secret, err := secrets.Resolve(ctx, configs.SecretRef(passphrase))
	if err != nil {
		return nil, err
	}
	r, err := age.NewScryptRecipient(secret)
	if err != nil {
		return nil, fmt.Errorf("the passphrase: %w", err)
	}
	return []age.Recipient{r}, nil
}

// backupIdentities open a backup.
func backupIdentities(command *cobra.Command, file, passphrase string) ([]age.Identity, error) {
	switch {
	case (file == "") == (passphrase == ""):
		return nil, usage(command, "name --identity FILE or --passphrase REFERENCE, what the backup was encrypted to")
	case file != "":
		return readIdentities(command, file)
	}
	secret, err := secrets.Resolve(command.Context(), configs.SecretRef(passphrase))
	if err != nil {
		return nil, err
	}
	i, err := age.NewScryptIdentity(secret)
	if err != nil {
		return nil, fmt.Errorf("the passphrase: %w", err)
	}
	return []age.Identity{i}, nil
}

// writeBackup has write fill the file, which comes into being only when it is whole and on the disk.
func writeBackup(command *cobra.Command, name string, write func(io.Writer) (backup.Manifest, error)) (made backup.Manifest, err error) {
	if name == "-" {
		return write(command.OutOrStdout())
	}
	if _, err := os.Lstat(name); err == nil {
		return made, fmt.Errorf("%s is there already; a backup overwrites nothing", name)
	}
	file, err := os.CreateTemp(filepath.Dir(name), ".sallyport-backup-*") // with mode 0600
	if err != nil {
		return made, fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(file.Name()) // after the rename there is none
	defer file.Close()
	if made, err = write(file); err != nil {
		return made, err
	}
	if err = errors.Join(file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		return made, fmt.Errorf("write %s: %w", name, err)
	}
	return made, nil
}
