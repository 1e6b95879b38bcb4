package ssh

import xssh "golang.org/x/crypto/ssh"

// What clients may negotiate. The library's own lists still have SHA-1 in them. The client's order decides, so what is
// slow here is left out: chacha20-poly1305 costs the gateway twice what AES-GCM does, and finite-field Diffie-Hellman
// tens of milliseconds before anybody has proven anything (CVE-2002-20001).
var (
	clientAlgorithms = xssh.Config{
		KeyExchanges: []string{xssh.KeyExchangeMLKEM768X25519, xssh.KeyExchangeCurve25519, xssh.KeyExchangeECDHP256},
		Ciphers: []string{
			xssh.CipherAES128GCM, xssh.CipherAES256GCM,
			xssh.CipherAES128CTR, xssh.CipherAES192CTR, xssh.CipherAES256CTR,
		},
		// The last one is for Dropbear's client, which has no encrypt-then-MAC; the client's order decides.
		MACs: []string{xssh.HMACSHA256ETM, xssh.HMACSHA512ETM, xssh.HMACSHA256},
	}
	clientKeyAlgorithms = []string{
		xssh.KeyAlgoED25519, xssh.KeyAlgoSKED25519,
		xssh.KeyAlgoECDSA256, xssh.KeyAlgoECDSA384, xssh.KeyAlgoECDSA521, xssh.KeyAlgoSKECDSA256,
		xssh.KeyAlgoRSASHA256, xssh.KeyAlgoRSASHA512,
	}
)

// What targets may negotiate: wider, as they are known and may be old, but without SHA-1 as well.
var targetAlgorithms = xssh.Config{
	KeyExchanges: []string{
		xssh.KeyExchangeMLKEM768X25519, xssh.KeyExchangeCurve25519,
		xssh.KeyExchangeECDHP256, xssh.KeyExchangeECDHP384, xssh.KeyExchangeECDHP521,
		xssh.KeyExchangeDH16SHA512, xssh.KeyExchangeDH14SHA256,
	},
	Ciphers: []string{
		xssh.CipherAES128GCM, xssh.CipherAES256GCM, xssh.CipherChaCha20Poly1305,
		xssh.CipherAES128CTR, xssh.CipherAES192CTR, xssh.CipherAES256CTR,
	},
	MACs: []string{xssh.HMACSHA256ETM, xssh.HMACSHA512ETM, xssh.HMACSHA256, xssh.HMACSHA512},
}
