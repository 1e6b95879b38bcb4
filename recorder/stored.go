package recorder

// Stored is the path of a session's recording, or of an audit file, below the state directory; it is empty where there is none.
// Settled says that it has ended and is not about to be packed.
func (r *Recorder) Stored(session string) (path string, settled bool) {
	r.mu.Lock()
	path, live := r.paths[session], r.live[session] != nil
	r.mu.Unlock()
	return path, path != "" && !live && !r.packer.has(session)
}
