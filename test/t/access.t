#!/usr/bin/perl
# How the wallet is reached: TLS, certificates, credentials; and that a
# configuration which cannot work is said, not guessed around.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => "settlement.retry_initial_backoff = '20ms'");
my $dir = $s->node->basedir;

sub write_file
{
	my ($name, $content) = @_;
	unlink "$dir/$name";
	PostgreSQL::Test::Utils::append_to_file("$dir/$name", $content);
	chmod 0600, "$dir/$name";
	return "$dir/$name";
}

sub openssl { PostgreSQL::Test::Utils::system_or_bail('openssl', @_) }

# An authority, and what it signs for the server and for us.
openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '30', '-subj', '/CN=authority', '-keyout', "$dir/ca.key", '-out', "$dir/ca.crt");
for my $who (qw(server client))
{
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$who", '-keyout', "$dir/$who.key", '-out', "$dir/$who.csr");
	write_file("$who.ext", $who eq 'server' ? "subjectAltName=IP:127.0.0.1\n" : "extendedKeyUsage=clientAuth\n");
	openssl('x509', '-req', '-in', "$dir/$who.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-days', '30',
		'-extfile', "$dir/$who.ext", '-out', "$dir/$who.crt");
}
write_file('secret', "Bearer the-secret-of-the-wallet\n");

# The ledger of a wallet that wants a client certificate is read by nobody here.
my $tls = Walletd->start(db => 'file', args => [ '--sync', 'off', '--admin', '--auth', "$dir/secret", '--tls-cert', "$dir/server.crt",
	'--tls-key', "$dir/server.key", '--log', "$dir/wallet.log" ], scheme => 'https',
	headers => { Authorization => 'Bearer the-secret-of-the-wallet' });

sub state_becomes { my ($state) = @_; $s->becomes('SELECT state FROM settlement.status', $state, "status says $state") }

scenario plain_http => sub {
	$s->set(plain_http => 'never');
	state_becomes('bad configuration');
	$s->trade('plain');
	$s->reset('plain_http');
	$s->status_is('plain', 'SETTLED', 'to a loopback address it is allowed by default');
	$s->set(wallet_url => 'http://192.0.2.1:9/');
	state_becomes('bad configuration');
	$s->reset('wallet_url');
	state_becomes('ok');
};

scenario tls_needs_a_trusted_certificate => sub {
	$s->set(wallet_url => $tls->url);
	$s->trade('tls');
	$s->becomes("SELECT count(*) > 0 FROM settlement.attempts WHERE trade_id = 'tls' AND outcome = 'not_executed'", 't', 'not sent to an unknown authority');
	is($s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id = 'tls' AND phase IN ('sent', 'replying', 'replied')"), 0, 'not a byte of it');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
};

scenario credentials => sub {
	$s->set(wallet_ca_file => "$dir/ca.crt");
	$s->becomes("SELECT count(*) > 0 FROM settlement.attempts WHERE trade_id = 'tls' AND http_status = 401", 't', 'refused without credentials');
	$s->set(wallet_auth_file => "$dir/nothing");
	state_becomes('bad configuration');
	$s->set(wallet_auth_file => "$dir/secret");
	$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = 'tls'", 'FAILED', 'answered with both: nobody has an account there');
	is($s->sql("SELECT code FROM settlement.dlq WHERE trade_id = 'tls'"), 'USER_NOT_FOUND', 'says the wallet');
	is($s->sql("SELECT component, status FROM settlement.doctor() WHERE component IN ('wallet', 'clock', 'tls')"), "wallet|ok\nclock|ok\ntls|ok", 'doctor() asks the same way');
	like($s->sql("SELECT detail FROM settlement.doctor() WHERE component = 'tls'"), qr/certificate ends at .*\(in (29|30) days\)/, 'and has read the certificate');
};

scenario no_secret_leaks => sub {
	my $log = PostgreSQL::Test::Utils::slurp_file($s->node->logfile);
	unlike($log, qr/the-secret-of-the-wallet/, 'not in the log');
	is($s->sql("SELECT count(*) FROM pg_stat_activity WHERE query ~ 'the-secret-of' AND pid <> pg_backend_pid()"), 0, 'not in pg_stat_activity');
	$s->sql('CREATE ROLE nobody LOGIN');
	my ($status, $out) = $s->try_sql('SHOW settlement.wallet_auth_file', extra_params => [ '-U', 'nobody' ]);
	isnt($status, 0, 'not even where it is, but for superusers');
};

scenario client_certificate => sub {
	my $strict = Walletd->start(db => ':memory:', args => [ '--tls-cert', "$dir/server.crt", '--tls-key', "$dir/server.key",
		'--tls-client-ca', "$dir/ca.crt", '--log', "$dir/strict.log" ]);
	(my $url = $strict->url) =~ s/^http:/https:/;
	$s->set(wallet_url => $url);
	$s->trade('certified');
	$s->becomes("SELECT count(*) > 0 FROM settlement.attempts WHERE trade_id = 'certified'", 't', 'refused without a certificate');
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'certified'"), 0, 'not dead-lettered');
	$s->set(wallet_cert_file => "$dir/client.crt", wallet_key_file => "$dir/client.key");
	$s->becomes("SELECT code FROM settlement.dlq WHERE trade_id = 'certified'", 'USER_NOT_FOUND', 'answered with one');
	my $ours = "SELECT status FROM settlement.doctor() WHERE component = 'tls' AND detail ~ '^our own certificate end'";
	is($s->sql($ours), 'ok', 'doctor() has read it');
	# of no days: it ends at once (OpenSSL 3.5 makes none that ended before it began)
	for my $age ([ 10, 'warn', 'that it ends soon' ], [ 0, 'fail', 'that it has ended' ])
	{
		my ($days, $status, $what) = @$age;
		openssl('x509', '-req', '-in', "$dir/client.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-days', $days, '-out', "$dir/aged.crt");
		$s->set(wallet_cert_file => "$dir/aged.crt");
		$s->becomes($ours, $status, "doctor() says $what");
	}
	is($s->sql("SELECT hint FROM settlement.doctor() WHERE component = 'tls' AND status = 'fail'") =~ /wallet_cert_file/, 1, '... and where to put another');
	$s->reset('wallet_url', 'wallet_cert_file', 'wallet_key_file', 'wallet_auth_file', 'wallet_ca_file');
};

# What doctor() says of the files, one by one.
scenario files => sub {
	my $says = "SELECT status, detail FROM settlement.doctor(probe => false) WHERE component = 'files'";
	my $name = 'the file that settlement.wallet_%s_file names';
	my @cases = (
		[ auth => "$dir/secret", 'ok|%s can be read' ],
		[ auth => "$dir/nothing", 'fail|%s cannot be used as it is: there is no such file' ],
		[ auth => $dir, 'fail|%s cannot be used as it is: it is not a file' ],
		[ auth => write_file('empty', ''), 'fail|%s cannot be used as it is: it is empty' ],
		[ auth => do { my $open = write_file('open', 'x'); chmod 0644, $open; $open }, 'warn|%s cannot be used as it is: others may read or change it' ],
		[ cert => "$dir/client.key", 'fail|%s cannot be used as it is: no certificate can be read in it' ]);
	for (@cases)
	{
		my ($which, $path, $expected) = @$_;
		$s->set("wallet_${which}_file" => $path);
		$s->becomes($says, sprintf($expected, sprintf($name, $which)), sprintf($expected, $which));
		is($s->sql("SELECT count(*) FROM settlement.doctor(probe => false) WHERE status <> 'ok' AND coalesce(hint, '') = ''"), 0, '... with a hint for each finding');
		$s->reset("wallet_${which}_file");
	}
};

scenario back_to_the_first_wallet => sub {
	state_becomes('ok');
	wait_for(sub { my $n = $s->requests; $s->trade('first-' . rand); $s->becomes("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'", 0, 'no trade waits'); $s->requests > $n },
		'the first wallet to be asked');
	$s->sql("SELECT settlement.redrive(trade_id, 'at the right wallet') FROM settlement.dlq");
	$s->settled_is('tls', 1, 'tls settles there');
	$s->settled_is('certified', 1, 'certified settles there');
	$s->ledgers_are_equal;
};

done_testing();
