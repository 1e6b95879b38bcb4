package interpret

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// keepBody is how much of one frame is looked at; of a larger one the interpreter knows the beginning, the length and
// the hash.
const keepBody = 1 << 20

// frame is a message, or the beginning of one.
type frame struct {
	typ  byte
	body []byte // valid during the call
	size int64  // of the whole body
	sum  string // SHA-256 of the whole body, where body is not all of it
}

// frames puts messages together that arrive in any pieces.
type frames struct {
	head   [5]byte
	filled int // of head
	body   []byte
	size   int64 // announced
	got    int64
	hash   hash.Hash // while the frame is larger than keepBody
}

// feed takes the next bytes and calls f with each message that is complete with them. It returns false where the bytes
// are no messages; it then forgets what it had and the rest of data.
func (r *frames) feed(data []byte, f func(frame)) bool {
	for len(data) > 0 {
		if r.filled == 0 && len(data) >= 5 { // the common case: a whole message, in place
			if size := int64(binary.BigEndian.Uint32(data[1:])) - 4; size >= 0 && size <= int64(len(data)-5) && size <= keepBody {
				f(frame{typ: data[0], body: data[5 : 5+size], size: size})
				data = data[5+size:]
				continue
			}
		}
		if r.filled < len(r.head) {
			n := copy(r.head[r.filled:], data)
			r.filled, data = r.filled+n, data[n:]
			if r.filled < len(r.head) {
				return true
			}
			r.size = int64(binary.BigEndian.Uint32(r.head[1:])) - 4
			if r.size < 0 {
				*r = frames{}
				return false
			}
			r.got, r.body, r.hash = 0, nil, nil
			if r.size > keepBody {
				r.hash = sha256.New()
			}
		}
		n := min(int64(len(data)), r.size-r.got)
		if r.hash != nil {
			r.hash.Write(data[:n])
		}
		if room := keepBody - int64(len(r.body)); room > 0 {
			r.body = append(r.body, data[:min(n, room)]...)
		}
		r.got, data = r.got+n, data[n:]
		if r.got == r.size {
			whole := frame{typ: r.head[0], body: r.body, size: r.size}
			if r.hash != nil {
				whole.sum = hex.EncodeToString(r.hash.Sum(nil))
			}
			r.filled, r.body, r.hash = 0, nil, nil
			f(whole)
		}
	}
	return true
}
