package session

import "time"

// oweTime is how long an end that could not be kept waits until it is tried again.
const oweTime = 30 * time.Second

// end is how a session ended, as it is kept.
type end struct {
	session        *Session
	reason, detail string
	at             time.Time
}

// owe has an end kept later that the store did not take: its disk may have been full, as the recordings' was. Until then the
// session is listed as live.
func (m *Manager) owe(e end) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owed = append(m.owed, e)
	if len(m.owed) == 1 && !m.draining {
		time.AfterFunc(m.patience, m.repay)
	}
}

// repay keeps what is owed, as far as the store takes it.
func (m *Manager) repay() {
	m.mu.Lock()
	owed := m.owed
	m.owed = nil
	m.mu.Unlock()
	for len(owed) > 0 && m.updateEnd(owed[0]) == nil {
		owed = owed[1:]
	}
	for _, e := range owed {
		m.owe(e)
	}
}
