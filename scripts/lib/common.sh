# common.sh: what scripts/demo, scripts/test and scripts/coverage share.
#
# They work on a private copy of the sources, with a private copy of PostgreSQL,
# as a user without privileges, in one directory that is removed at the end.
# The checkout, the machine's PostgreSQL and its clusters are never touched.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

die()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

fresh_seed()
{
	od -An -N4 -tu4 /dev/urandom | tr -d ' '
}

# The present directory and TMPDIR may be closed to the unprivileged user.
private_directory()	# [DIRECTORY TO CREATE]
{
	local dir=${1-}

	umask 022
	if [ -n "$dir" ]; then
		[ ! -e "$dir" ] || [ -z "$(ls -A "$dir")" ] || die "$dir exists and is not empty"
		mkdir -p "$dir" && dir=$(cd "$dir" && pwd)
	else
		dir=$(mktemp -d "${TMPDIR:-/tmp}/settlement.XXXXXX")
	fi
	# A unix socket's path has room for 107 bytes.
	[ ${#dir} -le 60 ] || die "the path $dir is too long for a unix socket; choose a shorter one"
	chmod 755 "$dir"
	echo "$dir"
}

# Copy the sources without what an earlier build or git left among them.
copy_sources()	# TO
{
	mkdir -p "$1"
	tar -C "$ROOT" --exclude-vcs --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude='*.gc??' --exclude='*.d' --exclude=./coverage --exclude=./results \
		--exclude=./tmp_check --exclude=./log --exclude=./wallet/walletd --exclude=./test/proxy/proxy \
		--exclude='./test/*/build' \
		-cf - . | tar -C "$1" -xf -
}

# Run a command as a user who may run PostgreSQL (root may not), with a clean
# environment, in a directory that then belongs to that user.
unprivileged()	# DIRECTORY COMMAND...
{
	local dir=$1 user name
	local -a drop=() settings=()
	shift
	for name in $(compgen -e SETTLEMENT_); do	# how long the long tests are
		settings+=("$name=${!name}")
	done

	if [ "$(id -u)" -eq 0 ]; then
		user=postgres
		id "$user" >/dev/null 2>&1 || user=nobody
		chown -R "$user": "$dir"
		drop=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups --pdeathsig TERM)
	fi
	mkdir -p "$dir/home"
	[ ${#drop[@]} -eq 0 ] || chown "$user": "$dir/home"
	cd "$dir"
	env -i HOME="$dir/home" PATH="$PATH:/usr/sbin:/sbin" TERM="${TERM:-dumb}" LANG=C.UTF-8 \
		PG_CONFIG="$PG_CONFIG" CI="${CI-}" COLUMNS="${COLUMNS-}" FILES="${FILES-}" \
		"${settings[@]}" "${drop[@]}" "$@"
}

# The pg_config to build for: $PG_CONFIG, or that of the newest version whose
# server and development files are both here.  Sets PG_CONFIG; false if none.
find_postgres()
{
	local bin found=
	[ -z "${PG_CONFIG-}" ] || return 0
	for bin in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V); do
		[ -x "$bin/postgres" ] && [ -x "$bin/pg_config" ] &&
			[ -e "$bin/../lib/pgxs/src/makefiles/pgxs.mk" ] && found=$bin/pg_config
	done
	[ -n "$found" ] && PG_CONFIG=$found
}

# Make a copy of PostgreSQL under a directory and print the copy's pg_config:
# programs find their files relative to themselves, so that extensions installed
# there are seen by nobody else.  Everything but the programs is a link.
copy_postgres()	# TO PG_CONFIG
{
	local to=$1 from dir
	from=$("$2" --bindir)

	for dir in --pkglibdir --sharedir; do
		dir=$("$from/pg_config" $dir)
		mkdir -p "$to$dir"
		cp -as "$dir/." "$to$dir/"
	done
	rm -rf "$to$("$from/pg_config" --pkglibdir)"/{settlement.so,bitcode} \
		"$to$("$from/pg_config" --sharedir)"/extension/settlement{.control,--*}
	mkdir -p "$to$from"
	cp -a "$from/." "$to$from/"
	for dir in --includedir-server --pkgincludedir --includedir; do
		dir=$("$from/pg_config" $dir)
		[ -e "$to$dir" ] || { mkdir -p "$to${dir%/*}" && ln -s "$dir" "$to$dir"; }
	done
	echo "$to$from/pg_config"
}

# Build the extension and the wallet in the present directory, and install the
# extension into the (copied) PostgreSQL.  Arguments go to make.
build()
{
	make -s -j2 PG_CONFIG="$PG_CONFIG" with_llvm=no "$@" &&
		make -s PG_CONFIG="$PG_CONFIG" with_llvm=no install "$@" &&
		make -s -j2 -C wallet
}

# Make and start a private cluster: no TCP, its socket in its own directory.
# Lines of postgresql.conf come on standard input.
start_cluster()	# DIRECTORY
{
	local dir=$1 bin
	bin=$("$PG_CONFIG" --bindir)

	mkdir -m 700 -p "$dir"
	"$bin/initdb" -D "$dir/data" -U postgres --auth=trust --locale=C.UTF-8 \
		--encoding=UTF8 --no-instructions >"$dir/initdb.log" 2>&1 ||
		{ cat "$dir/initdb.log" >&2; return 1; }
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$dir'"
		cat
	} >>"$dir/data/postgresql.conf"
	"$bin/pg_ctl" -D "$dir/data" -l "$dir/postgresql.log" -w -t 60 start >/dev/null ||
		{ tail -20 "$dir/postgresql.log" >&2; return 1; }
}

stop_cluster()	# DIRECTORY
{
	[ ! -e "$1/data/postmaster.pid" ] ||
		"$("$PG_CONFIG" --bindir)/pg_ctl" -D "$1/data" -m fast -w -t 60 stop >/dev/null ||
		"$("$PG_CONFIG" --bindir)/pg_ctl" -D "$1/data" -m immediate stop >/dev/null
}

# Start the reference wallet on a free loopback port and wait until it answers.
# Sets WALLET_URL; its pid is in wallet.pid.  Further arguments are options of walletd.
start_wallet()	# DIRECTORY [OPTION...]
{
	local dir=$1 try pid
	shift
	rm -f "$dir/wallet.port"
	setsid wallet/walletd --listen 127.0.0.1:0 --port-file "$dir/wallet.port" \
		--db "$dir/wallet.db" "$@" >"$dir/wallet.log" 2>&1 &
	pid=$!
	echo $pid >"$dir/wallet.pid"
	for ((try = 0; try < 100; try++)); do
		if [ -s "$dir/wallet.port" ]; then
			WALLET_URL=http://127.0.0.1:$(<"$dir/wallet.port")
			return 0
		fi
		kill -0 $pid 2>/dev/null || break
		sleep 0.1
	done
	cat "$dir/wallet.log" >&2
	return 1
}

stop_process()	# PID
{
	[ -n "$1" ] || return 0
	kill "$1" 2>/dev/null || return 0
	wait "$1" 2>/dev/null || true
}

# End what still runs from a private directory.  Its programs are copies, so
# that the path of the executable tells them from everybody else's.
end_processes_of()	# DIRECTORY
{
	local signal try proc found

	for signal in INT QUIT KILL; do
		for ((try = 0; try < 30; try++)); do
			found=false
			for proc in /proc/[0-9]*; do
				[[ $(readlink "$proc/exe" 2>/dev/null) == "$1"/* ]] || continue
				found=true
				[ $((try % 10)) -ne 0 ] || kill -s $signal "${proc#/proc/}" 2>/dev/null || true
			done
			$found || return 0
			sleep 0.1
		done
	done
}
