//! The store from outside: what it keeps, through kills, damage and full disks.

mod behaviour;
mod crash;
mod damage;
mod full;
mod table;
