package ssh

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// raw is a client that says what a test wants to have said, packet by packet (RFC 4253), for what no library sends.
type raw struct {
	t       *testing.T
	conn    net.Conn
	in      *bufio.Reader
	server  string // its version line
	ours    []byte // the last offer
	session []byte // id
	seal    *rawCipher
	open    *rawCipher
	late    atomic.Bool // the test's time is over
}

// The message numbers that the tests use (RFC 4250, section 4.1.2).
const (
	rawDisconnect     = 1
	rawServiceRequest = 5
	rawServiceAccept  = 6
	rawKexInit        = 20
	rawNewKeys        = 21
	rawKexECDHInit    = 30
	rawKexECDHReply   = 31
	rawAuthRequest    = 50
	rawAuthFailure    = 51
	rawAuthSuccess    = 52
	rawAuthBanner     = 53
	rawKeyOK          = 60
	rawGlobalRequest  = 80
	rawGlobalSuccess  = 81
	rawGlobalFailure  = 82
	rawChannelOpen    = 90
	rawOpenConfirm    = 91
	rawWindowAdjust   = 93
	rawData           = 94
	rawExtendedData   = 95
	rawEOF            = 96
	rawChannelClose   = 97
	rawChannelRequest = 98
	rawChannelSuccess = 99
	rawChannelFailure = 100
	rawPing           = 192
	rawPong           = 193

	rawVersion = "SSH-2.0-raw"
)

// rawCipher is AES-GCM (RFC 5647) in one direction.
type rawCipher struct {
	aead cipher.AEAD
	iv   []byte
}

func (c *rawCipher) next() {
	binary.BigEndian.PutUint64(c.iv[4:], binary.BigEndian.Uint64(c.iv[4:])+1)
}

// raw connects to the gateway and makes the first keys.
func (r *rig) raw(t *testing.T) *raw {
	t.Helper()
	return r.rawOver(t, must(net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port)))(t))
}

// rawOver makes the first keys on a connection.
func (r *rig) rawOver(t *testing.T, conn net.Conn) *raw {
	t.Helper()
	c := &raw{t: t, conn: conn, in: bufio.NewReader(conn)}
	late := time.AfterFunc(deadline, func() { c.late.Store(true); conn.Close() })
	t.Cleanup(func() { late.Stop(); conn.Close() })
	if _, err := io.WriteString(c.conn, rawVersion+"\r\n"); err != nil {
		t.Fatal(err)
	}
	c.server = strings.TrimRight(must(c.in.ReadString('\n'))(t), "\r\n")
	c.send(c.offer(r))
	c.exchange(r, c.read(rawKexInit))
	return c
}

// rawTarget is raw as the other side: a target that makes the first keys and lets everybody in. It is nil where the gateway is gone before.
func rawTarget(t *testing.T, conn net.Conn, host xssh.Signer) *raw {
	c := &raw{t: t, conn: conn, in: bufio.NewReader(conn)}
	_, _ = io.WriteString(conn, rawVersion+"\r\n")
	client, err := c.in.ReadString('\n')
	if err != nil {
		return nil
	}
	c.send(c.offerFor(host.PublicKey()))
	theirs, begun := c.upTo(rawKexInit)
	asked, there := c.upTo(rawKexECDHInit)
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if !begun || !there || err != nil {
		return nil
	}
	peer, err := ecdh.X25519().NewPublicKey(asked[5:])
	if err != nil {
		return nil
	}
	shared, err := private.ECDH(peer)
	if err != nil {
		return nil
	}
	public := private.PublicKey().Bytes()
	secret := xssh.Marshal(struct{ K *big.Int }{new(big.Int).SetBytes(shared)})
	hash := sha256.Sum256(append(xssh.Marshal(struct{ A, B, C, D, E, F, G []byte }{
		[]byte(strings.TrimRight(client, "\r\n")), []byte(rawVersion), theirs, c.ours, host.PublicKey().Marshal(), asked[5:], public,
	}), secret...))
	signature, err := host.Sign(rand.Reader, hash[:])
	if err != nil {
		return nil
	}
	c.session = hash[:]
	c.send(append([]byte{rawKexECDHReply}, xssh.Marshal(struct{ Host, Q, Signature []byte }{host.PublicKey().Marshal(), public, xssh.Marshal(signature)})...))
	c.send([]byte{rawNewKeys})
	c.seal = c.made(secret, hash[:], 'B', 'D')
	if _, there = c.upTo(rawNewKeys); !there {
		return nil
	}
	c.open = c.made(secret, hash[:], 'A', 'C')
	_, there = c.upTo(rawServiceRequest)
	c.send(append([]byte{rawServiceAccept}, xssh.Marshal(struct{ Name string }{"ssh-userauth"})...))
	_, asks := c.upTo(rawAuthRequest)
	c.send([]byte{rawAuthSuccess})
	if !there || !asks {
		return nil
	}
	return c
}

// upTo reads up to a message of one kind; false where the other side is gone before.
func (c *raw) upTo(kind byte) ([]byte, bool) {
	for {
		if p, err := c.next(); err != nil || p[0] == kind {
			return p, err == nil
		}
	}
}

// made is one direction's cipher (RFC 4253, section 7.2).
func (c *raw) made(secret, hash []byte, iv, key byte) *rawCipher {
	derived := func(letter byte, size int) []byte {
		sum := sha256.Sum256(append(append(append(bytes.Clone(secret), hash...), letter), c.session...))
		return bytes.Clone(sum[:size])
	}
	return &rawCipher{aead: must(cipher.NewGCM(must(aes.NewCipher(derived(key, 16)))(c.t)))(c.t), iv: derived(iv, 12)}
}

// offer is the client's offer of algorithms.
func (c *raw) offer(r *rig) []byte { return c.offerFor(r.authn.HostKey().PublicKey()) }

func (c *raw) offerFor(host xssh.PublicKey) []byte {
	gcm, mac, none := []string{xssh.CipherAES128GCM}, []string{xssh.HMACSHA256ETM}, []string{"none"}
	offer := struct {
		Cookie                                       [16]byte
		Kex, Host, C1, C2, M1, M2, Z1, Z2, Lang1, L2 []string
		Follows                                      bool
		Reserved                                     uint32
	}{
		Kex: []string{xssh.KeyExchangeCurve25519}, Host: []string{host.Type()},
		C1: gcm, C2: gcm, M1: mac, M2: mac, Z1: none, Z2: none,
	}
	rand.Read(offer.Cookie[:])
	c.ours = append([]byte{rawKexInit}, xssh.Marshal(offer)...)
	return c.ours
}

// exchange makes keys, after both offers.
func (c *raw) exchange(r *rig, theirs []byte) {
	c.t.Helper()
	private := must(ecdh.X25519().GenerateKey(rand.Reader))(c.t)
	public := private.PublicKey().Bytes()
	c.send(append([]byte{rawKexECDHInit}, xssh.Marshal(struct{ Q []byte }{public})...))
	var reply struct{ Host, Q, Signature []byte }
	if err := xssh.Unmarshal(c.read(rawKexECDHReply)[1:], &reply); err != nil {
		c.t.Fatal(err)
	}
	shared := must(private.ECDH(must(ecdh.X25519().NewPublicKey(reply.Q))(c.t)))(c.t)
	secret := xssh.Marshal(struct{ K *big.Int }{new(big.Int).SetBytes(shared)})
	hash := sha256.Sum256(append(xssh.Marshal(struct{ A, B, C, D, E, F, G []byte }{
		[]byte(rawVersion), []byte(c.server), c.ours, theirs, reply.Host, public, reply.Q,
	}), secret...))
	var signature xssh.Signature
	if err := xssh.Unmarshal(reply.Signature, &signature); err != nil {
		c.t.Fatal(err)
	}
	if err := r.authn.HostKey().PublicKey().Verify(hash[:], &signature); err != nil {
		c.t.Fatal("the gateway does not prove itself: ", err)
	}
	if c.session == nil {
		c.session = hash[:]
	}
	c.send([]byte{rawNewKeys})
	c.seal = c.made(secret, hash[:], 'A', 'C')
	c.read(rawNewKeys)
	c.open = c.made(secret, hash[:], 'B', 'D')
}

// send sends a packet; that the gateway has hung up meanwhile shows in what is read.
func (c *raw) send(payload []byte) { _, _ = c.conn.Write(c.packet(payload)) }

// packet is a packet as it stands on the wire.
func (c *raw) packet(payload []byte) []byte {
	size, head := 16, 1
	if c.seal == nil {
		size, head = 8, 5
	}
	padding := size - (head+len(payload))%size
	if padding < 4 {
		padding += size
	}
	plain := append(append([]byte{byte(padding)}, payload...), make([]byte, padding)...)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(plain)))
	if c.seal == nil {
		return append(length, plain...)
	}
	defer c.seal.next()
	return append(length, c.seal.aead.Seal(nil, c.seal.iv, plain, length)...)
}

// next is the next packet's payload.
func (c *raw) next() ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(c.in, length); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length)
	if n > 64<<10 {
		return nil, fmt.Errorf("a packet of %d bytes", n)
	}
	if c.open != nil {
		n += 16
	}
	plain := make([]byte, n)
	if _, err := io.ReadFull(c.in, plain); err != nil {
		return nil, err
	}
	if c.open != nil {
		var err error
		if plain, err = c.open.aead.Open(nil, c.open.iv, plain, length); err != nil {
			return nil, err
		}
		c.open.next()
	}
	if len(plain) < 2 || len(plain) < 2+int(plain[0]) {
		return nil, errors.New("a packet of nothing")
	}
	return plain[1 : len(plain)-int(plain[0])], nil
}

// read reads up to a message of one of the kinds.
func (c *raw) read(kinds ...byte) []byte {
	c.t.Helper()
	for {
		p, err := c.next()
		if err != nil {
			c.t.Fatalf("while waiting for %v: %v", kinds, err)
		}
		if bytes.IndexByte(kinds, p[0]) >= 0 {
			return p
		}
	}
}

// hungUp reads until the gateway hangs up, and fails when it sends a message that it must not.
func (c *raw) hungUp(never ...byte) {
	c.t.Helper()
	for {
		p, err := c.next()
		switch {
		case c.late.Load():
			c.t.Fatal("it does not hang up")
		case err != nil || p[0] == rawDisconnect:
			return
		case bytes.IndexByte(never, p[0]) >= 0:
			c.t.Fatalf("it answers %q", p)
		}
	}
}

// service asks to log in.
func (c *raw) service() {
	c.t.Helper()
	c.send(append([]byte{rawServiceRequest}, xssh.Marshal(struct{ Name string }{"ssh-userauth"})...))
	c.read(rawServiceAccept)
}

// authRequest is a request to log in with a key, without or with the signature.
func (c *raw) authRequest(user string, signed bool, key xssh.PublicKey) []byte {
	return append([]byte{rawAuthRequest}, xssh.Marshal(struct {
		User, Service, Method string
		Signed                bool
		Algorithm             string
		Key                   []byte
	}{user, "ssh-connection", "publickey", signed, key.Type(), key.Marshal()})...)
}

// login logs in.
func (c *raw) login(user string, signer xssh.Signer) {
	c.t.Helper()
	c.service()
	request := c.authRequest(user, true, signer.PublicKey())
	signature := must(signer.Sign(rand.Reader, append(xssh.Marshal(struct{ ID []byte }{c.session}), request...)))(c.t)
	c.send(append(request, xssh.Marshal(struct{ S []byte }{xssh.Marshal(signature)})...))
	c.read(rawAuthSuccess)
}

// openSession asks for a session channel with number 0.
func openSession(window, packet uint32) []byte {
	return append([]byte{rawChannelOpen}, xssh.Marshal(struct {
		Kind                   string
		Number, Window, Packet uint32
	}{"session", 0, window, packet})...)
}

// run opens a channel with number 0 and runs a command on it. It returns the gateway's number for the channel.
func (c *raw) run(window, packet uint32, command string) (number uint32) {
	c.t.Helper()
	c.send(openSession(window, packet))
	p := c.read(rawOpenConfirm)
	number = binary.BigEndian.Uint32(p[5:])
	c.send(append([]byte{rawChannelRequest}, xssh.Marshal(struct {
		Number  uint32
		Kind    string
		Reply   bool
		Command string
	}{number, "exec", true, command})...))
	c.read(rawChannelSuccess)
	return number
}

// data is a message with data for a channel; kind 0 is ordinary, others are extended data of that kind.
func (c *raw) data(number, kind uint32, data []byte) []byte {
	if kind == 0 {
		return append([]byte{rawData}, xssh.Marshal(struct {
			Number uint32
			Data   []byte
		}{number, data})...)
	}
	return append([]byte{rawExtendedData}, xssh.Marshal(struct {
		Number, Kind uint32
		Data         []byte
	}{number, kind, data})...)
}
