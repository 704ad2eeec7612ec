# git.sh PROTO KIND: init, commit, clone, fsck
. "$HERE/lib.sh"
pool $2
berthd
attach $1 /mnt/a
export GIT_CONFIG_GLOBAL=/run/gitconfig GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git config --global core.fsyncObjectFiles true
git init -q /mnt/a/one
cp -r /usr/include/linux/netfilter* /mnt/a/one/
git -C /mnt/a/one add .
git -C /mnt/a/one commit -q -m first
git -C /mnt/a/one mv netfilter moved
git -C /mnt/a/one rm -q netfilter.h
git -C /mnt/a/one commit -q -m second
git clone -q --no-local /mnt/a/one /mnt/a/two
drop_caches
git -C /mnt/a/one fsck --full --strict
git -C /mnt/a/two fsck --full --strict
[ -z "$(git -C /mnt/a/two status --porcelain)" ]
[ "$(git -C /mnt/a/one rev-parse HEAD)" = "$(git -C /mnt/a/two rev-parse HEAD)" ]
diff -r /usr/include/linux/netfilter /mnt/a/two/moved
no_copies
umount /mnt/a
