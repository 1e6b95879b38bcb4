package ssh

import (
	"fmt"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
)

// Setup is what an administrator of the target does once so that the gateway, and only the gateway, can log in to the
// target's accounts: files, sshd lines, and the same as Ansible tasks. authority is the gateway's target authority.
func Setup(target configs.Target, authority xssh.PublicKey) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	key := strings.TrimSpace(string(xssh.MarshalAuthorizedKey(authority)))
	line("# What target %s (%s) needs. GATEWAY is the address from which the gateway connects.", target.Name, target.Address)
	line("")
	line("# 1. /etc/ssh/sallyport_target_ca.pub")
	line("%s sallyport target authority", key)
	line("")
	for _, a := range target.Accounts {
		line("# 2. /etc/ssh/sallyport_principals/%s (owner root, mode 0644)", a.UserName())
		line("%s", principal(a))
	}
	line("")
	line("# 3. /etc/ssh/sshd_config.d/sallyport.conf, then: sshd -t && systemctl reload ssh")
	line("TrustedUserCAKeys /etc/ssh/sallyport_target_ca.pub")
	line("AuthorizedPrincipalsFile /etc/ssh/sallyport_principals/%%u")
	line("# OpenSSH 9.8 and later punish an address for failed logins; all users share the gateway's:")
	line("#PerSourcePenaltyExemptList GATEWAY")
	line("# Nobody but the gateway, once it works:")
	for _, a := range target.Accounts {
		line("#AllowUsers %s@GATEWAY", a.UserName())
	}
	line("")
	line("# The same with Ansible:")
	line(`- name: Trust Sallyport's target authority
  ansible.builtin.copy:
    dest: /etc/ssh/sallyport_target_ca.pub
    content: %q
    owner: root
    mode: "0644"
- name: Directory of principals
  ansible.builtin.file:
    path: /etc/ssh/sallyport_principals
    state: directory
    owner: root
    mode: "0755"`, key+"\n")
	for _, a := range target.Accounts {
		line(`- name: Principals of %[1]s
  ansible.builtin.copy:
    dest: /etc/ssh/sallyport_principals/%[1]s
    content: %[2]q
    owner: root
    mode: "0644"`, a.UserName(), principal(a)+"\n")
	}
	line(`- name: sshd accepts Sallyport's certificates
  ansible.builtin.copy:
    dest: /etc/ssh/sshd_config.d/sallyport.conf
    content: |
      TrustedUserCAKeys /etc/ssh/sallyport_target_ca.pub
      AuthorizedPrincipalsFile /etc/ssh/sallyport_principals/%%u
    owner: root
    mode: "0644"
    validate: /usr/sbin/sshd -t -f %%s
  notify: reload sshd`)
	line("")
	line("# 4. On the gateway, pin this machine's host key (compare the fingerprint on the machine itself):")
	line("#    sallyport targets trust %s", target.Name)
	line("# Then: sallyport targets check %s", target.Name)
	return b.String()
}

// principal is the one name that the gateway's certificates for the account carry.
func principal(a configs.Account) string {
	if a.Principal != "" {
		return a.Principal
	}
	return a.UserName()
}
