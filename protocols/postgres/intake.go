package postgres

import (
	"errors"

	"sallyport/protocols/postgres/wire"
)

// hold is up to how large a frame passes whole.
const hold = 8 << 10

// intake reads one end of a session in chunks: as much as has arrived, and no less than can be told apart. While nothing
// arrives it holds no buffer but for the beginning of a frame.
type intake struct {
	from source
	rest []byte // the beginning of a frame, of up to hold bytes
}

// source is an end as wire.Ahead reads it.
type source interface {
	Arrivals(holding bool, arrived func() (more bool, err error)) error
	ReadArrived(p []byte) (int, error)
}

// errEnough is how a taker ends each without an error.
var errEnough = errors.New("enough")

// each has take look at what has arrived; it returns how much it took, and what is left comes again with more. It returns nil
// when take returned errEnough, or else why no more can be read. For holding see wire.Ahead.Arrivals.
func (in *intake) each(holding bool, take func(chunk []byte) (int, error)) error {
	err := in.from.Arrivals(holding, func() (bool, error) {
		buf := wire.Borrow()
		defer wire.GiveBack(buf)
		n := copy(buf[:], in.rest)
		in.rest = in.rest[:0]
		for {
			read, err := in.from.ReadArrived(buf[n:])
			if errors.Is(err, wire.ErrNothing) {
				in.rest = append(in.rest, buf[:n]...)
				return true, nil
			}
			if read == 0 && err != nil {
				return false, err
			}
			n += read
			taken, err := take(buf[:n])
			if err != nil {
				return false, err
			}
			n = copy(buf[:], buf[taken:n])
		}
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
