package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// KeyFile is the log's private key in the gateway's folder of keys; its public half stands beside it with PublicExtension.
const (
	KeyFile         = "log"
	PublicExtension = ".pub"
)

// LoadKey reads the key in dir that signs the log and nothing else, or makes it, with origin as the log's name: that of a
// key that is there stays what it was. It refuses a file that others may read.
func LoadKey(dir, origin string) (note.Signer, transparency.LogKey, error) {
	fail := func(err error) (note.Signer, transparency.LogKey, error) {
		return nil, transparency.LogKey{}, fmt.Errorf("the log's key: %w", err)
	}
	path := filepath.Join(dir, KeyFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		private, public, err := transparency.GenerateKey(origin)
		if err != nil {
			return fail(fmt.Errorf("%q can't be a log's name: %w", origin, err))
		}
		if err := disk.MakeDirectory(dir, dir); err != nil {
			return fail(err)
		}
		// The public half first: a private one is never without.
		if err := disk.Replace(path+PublicExtension, []byte(public+"\n")); err != nil {
			return fail(err)
		}
		if err := disk.Replace(path, []byte(private+"\n")); err != nil {
			return fail(err)
		}
		info, err = os.Stat(path)
		if err != nil {
			return fail(err)
		}
	} else if err != nil {
		return fail(err)
	}
	if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return fail(fmt.Errorf("%s can be read by others: run chmod 600 on it, and think about who has it", path))
	}
	private, err := disk.Read(path, 4096)
	if err != nil {
		return fail(err)
	}
	public, err := disk.Read(path+PublicExtension, 4096)
	if err != nil {
		return fail(err)
	}
	signer, err := transparency.SignerOf(strings.TrimSpace(string(private)))
	if err != nil {
		return fail(err)
	}
	key, err := transparency.ParseLogKey(string(public))
	if err != nil {
		return fail(err)
	}
	if key.Name() != signer.Name() || key.KeyHash() != signer.KeyHash() {
		return fail(fmt.Errorf("%s and %s do not belong together", path, path+PublicExtension))
	}
	return signer, key, nil
}
