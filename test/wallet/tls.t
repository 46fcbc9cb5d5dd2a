#!/usr/bin/perl
# TLS, and certificates of clients.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use File::Temp qw(tempdir);
use Walletd qw(new_key wait_for);

plan skip_all => 'needs openssl and curl'
	if `openssl version 2>&1` !~ /OpenSSL/ || `curl --version 2>&1` !~ /^curl/;

my $dir = tempdir(CLEANUP => 1);
sub openssl { my $out = `cd '$dir' && openssl @_ 2>&1`; die $out if $?; }

# two authorities; a server and a client of the first, a client of the second
for my $ca (qw(ca other))
{
	openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.pem");
}
for (qw(server:ca client:ca stranger:other))
{
	my ($name, $ca) = split /:/;
	open my $ext, '>', "$dir/$name.ext";
	print $ext "subjectAltName=IP:127.0.0.1\n";
	close $ext;
	openssl("req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr");
	openssl("x509 -req -in $name.csr -days 2 -CA $ca.pem -CAkey $ca.key -CAcreateserial -extfile $name.ext -out $name.pem");
}

my @server = ('--tls-cert', "$dir/server.pem", '--tls-key', "$dir/server.key");

# (exit code of curl, what it printed)
sub curl
{
	my ($wallet, $path, @more) = @_;
	my @command = ('curl', '-sS', '--max-time', '10', '--cacert', "$dir/ca.pem", @more, "https://127.0.0.1:$wallet->{port}$path");
	open my $pipe, '-|', join(' ', map { s/'/'\\''/gr =~ s/\A|\z/'/gr } @command) . ' 2>&1' or die;
	local $/;
	my $out = <$pipe> // '';
	close $pipe;
	return ($? >> 8, $out);
}

sub settle
{
	my ($wallet, $id, @more) = @_;
	return curl($wallet, '/api/wallets/settle', '-H', 'Content-Type: application/json', '-H', 'Idempotency-Key: ' . new_key(),
		'-d', $wallet->trade(trade_id => $id, base_amount => '0.01'), @more);
}

my $wallet = Walletd->start(args => \@server, scheme => 'https');
my ($exit, $out) = curl($wallet, '/admin/accounts', '-d',
	'[{"account":"alice","currency":"USDT","amount":"1000000"},{"account":"bob","currency":"BTC","amount":"100"}]');
is($exit, 0, 'a_client_that_knows_the_authority_is_served') or diag $out;
like((settle($wallet, 't1'))[1], qr/"success":true/, 'a_trade_settles_over_tls');
is((curl($wallet, '/healthz', '--cacert', "$dir/other.pem"))[0], 60, 'a_client_of_another_authority_turns_away');
my $plain = $wallet->connect;
$plain->syswrite("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
unlike((Walletd::read_all($plain, 3))[0], qr/200 OK/, 'plain_http_is_not_answered');
close $plain;
($exit, $out) = curl($wallet, '/healthz', "https://127.0.0.1:$wallet->{port}/stats", '--cacert', "$dir/ca.pem", '-w', '%{num_connects} ');
is(join('', $out =~ /\b([01]) /g), '10', 'a_tls_connection_is_kept_alive') or diag $out;

sub rule { my ($json) = @_; return curl($wallet, '/admin/faults', '-X', 'PUT', '-d', "[$json]") }
my %ends = (
	'{"action":"close"}' => 'read_then_close',
	'{"action":"close","apply":true}' => 'apply_then_drop',
	'{"action":"reset"}' => 'reset',
);
for my $json (sort keys %ends)
{
	rule($json);
	my ($code) = settle($wallet, $ends{$json});
	ok($code == 52 || $code == 56, "$ends{$json}_over_tls") or diag $code;
}
# Newer versions of curl say 56 wherever TLS did not end in order.
rule('{"action":"truncate"}');
like(join(' ', settle($wallet, 'cut')), qr/\A(?:18|56) [^}]*\{"success":true[^}]*\z/, 'a_truncated_reply_over_tls');
rule('{"action":"raw","body":"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}');
is((settle($wallet, 'raw'))[1], 'ok', 'raw_bytes_over_tls');
rule('{"action":"drip","bytes":50,"interval_ms":20}');
like((settle($wallet, 'drip'))[1], qr/"success":true.*\}/, 'a_drip_over_tls');
rule('{"action":"twice"}');
{
	my $body = $wallet->trade(trade_id => 'twice', base_amount => '0.01');
	open my $file, '>', "$dir/request" or die;
	print $file $wallet->settle_bytes($body, new_key());
	close $file;
	my $seen = `(cat '$dir/request'; sleep 0.5) | timeout 2 openssl s_client -quiet -connect 127.0.0.1:$wallet->{port} 2>/dev/null`;
	is(scalar(() = $seen =~ /"success":true/g), 2, 'twice_over_tls') or diag $seen;
}
rule('{"action":"hang","ms":200}');
like(join(' ', settle($wallet, 'hang')), qr/\A(52|56) curl: /, 'a_hang_over_tls');
is($wallet->stop, 0, 'ends_cleanly');

my $mutual = Walletd->start(args => [ @server, '--tls-client-ca', "$dir/ca.pem" ], scheme => 'https');
my @client = ('--cert', "$dir/client.pem", '--key', "$dir/client.key");
is((curl($mutual, '/healthz', @client))[0], 0, 'a_client_with_a_good_certificate_is_let_in');
isnt((curl($mutual, '/healthz'))[0], 0, 'one_without_is_kept_out');
isnt((curl($mutual, '/healthz', '--cert', "$dir/stranger.pem", '--key', "$dir/stranger.key"))[0], 0, 'one_of_another_authority_is_kept_out');
is((curl($mutual, '/healthz', @client))[0], 0, 'and_the_good_one_still_comes_in');
is($mutual->stop, 0, 'ends_cleanly');

my $binary = $ENV{WALLETD} // Walletd::root() . '/wallet/walletd';
like(`'$binary' --db :memory: --tls-cert '$dir/server.pem' --tls-key '$dir/client.key' 2>&1`,
	qr/cannot be used/, 'a_key_of_another_certificate_is_refused');
done_testing;
